using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>What a layer says to either planner, carried out for one node.</content>
internal abstract partial class PlanBuilder
{
    /// <summary>One node on its way into the plan.</summary>
    protected abstract class NodeLowering(PlanBuilder planner, Node node) : ILowering
    {
        private readonly List<Node> _covered = [node];

        /// <summary>What is added to the node's value before the ReLU that is fused with it (<see cref="Fusion.BatchNormAddRelu"/>).</summary>
        protected Node? Residual { get; private set; }

        public string Name => Node.Name;

        public int InputCount => Node.Inputs.Count;

        public bool ReadsImages => Input() == planner.Value(planner.Network.Input);

        /// <summary>The node itself.</summary>
        protected Node Node { get; } = node;

        /// <summary>The node whose value is computed: the last one that is fused with it.</summary>
        protected Node Output => _covered[^1];

        public Tensor Input(int index = 0) => planner.Value(Node.Inputs[index]);

        public string InputName(int index = 0) => Node.Inputs[index].Name;

        public bool IsPlaced(int index) => planner.IsPlaced(Node.Inputs[index]);

        public ImagePreparation PrepareImages() => planner.PrepareImages(Node);

        public Tensor InLayout(Tensor tensor, TensorLayout layout) => planner.InLayout(tensor, layout);

        public Tensor AsLogits(Tensor tensor) => planner.AsLogits(tensor);

        public void RequireManagedCode(string function) => planner.RequireManagedCode(Node, function);

        public Tensor AsManaged(Tensor tensor) => planner.AsManaged(tensor);

        public Tensor NewValue(TensorLayout layout) => Cover(planner.NewValue(Output, layout));

        /// <summary>Makes a tensor the value of the node and of all that are fused with it.</summary>
        protected Tensor Cover(Tensor value)
        {
            foreach (Node covered in _covered)
            {
                planner.SetValue(covered, value);
            }

            return value;
        }

        public Tensor Value(TensorLayout layout) => planner._values.TryGetValue(Node, out Tensor? value) ? value : NewValue(layout);

        public Tensor InPlaceOrNew() => planner.InPlaceOrNew(Node, Input());

        public abstract Tensor AddState(string parameter, TensorLayout layout);

        public bool FuseReluWithBatchNorm() => FuseRelu(Fusion.BatchNormRelu);

        public Tensor? FuseResidual(TensorLayout layout)
        {
            if (planner.FusableSum(Output, Node) is not { } end)
            {
                return null;
            }

            Residual = end.Residual;
            Fuse(Fusion.BatchNormAddRelu, end.Sum, end.Relu);
            return planner.InLayout(planner.Value(end.Residual), layout);
        }

        public void Emit(Operation operation) => planner.Emit(operation);

        protected bool FuseRelu(string rule)
        {
            if (planner.FusableRelu(Output, rule) is not Node relu)
            {
                return false;
            }

            Fuse(rule, relu);
            return true;
        }

        /// <summary>The node's operation computes the values of those after it too.</summary>
        protected void Fuse(string rule, params IEnumerable<Node> next)
        {
            planner.Count(rule);
            planner._fused.UnionWith(next);
            _covered.AddRange(next);
        }
    }
}
