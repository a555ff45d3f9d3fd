using System.Collections.Immutable;
using System.Reflection;
using System.Reflection.Emit;
using System.Reflection.Metadata;
using System.Reflection.Metadata.Ecma335;
using System.Reflection.PortableExecutable;

namespace HpcBatchNorm.Tests.Architecture;

/// <summary>
/// Which namespace uses which, read from compiled assemblies: base types, interfaces, attributes, signatures, local variables and every type or member that the
/// code of a method names. What the compiler erased (a using without use, nameof, a constant) is no reference.
/// </summary>
internal sealed class AssemblyReferences : ISignatureTypeProvider<IEnumerable<string>, object?>
{
    private static readonly Dictionary<ushort, OperandType> Operands = typeof(OpCodes).GetFields(BindingFlags.Public | BindingFlags.Static)
        .Select(f => (OpCode)f.GetValue(null)!).ToDictionary(o => (ushort)o.Value, o => o.OperandType);

    private readonly MetadataReader _reader;
    private readonly PEReader _file;

    private AssemblyReferences(PEReader file) => (_file, _reader) = (file, file.GetMetadataReader());

    /// <summary>Names of the assemblies that an assembly references.</summary>
    public static IReadOnlyList<string> Assemblies(string path)
    {
        using var file = new PEReader(File.OpenRead(path));
        MetadataReader reader = file.GetMetadataReader();
        return [.. reader.AssemblyReferences.Select(h => reader.GetString(reader.GetAssemblyReference(h).Name))];
    }

    /// <summary>Every pair of namespaces of which the first, in this assembly, uses the second, here or elsewhere, with a type of each as an example.</summary>
    public static IReadOnlyDictionary<(string From, string To), string> Namespaces(string path)
    {
        using var file = new PEReader(File.OpenRead(path));
        return new AssemblyReferences(file).Read();
    }

    private Dictionary<(string From, string To), string> Read()
    {
        Dictionary<(string, string), string> found = [];
        foreach (TypeDefinitionHandle handle in _reader.TypeDefinitions)
        {
            string from = NamespaceOf(handle), name = FullName(handle);
            foreach (string used in TypesOf(_reader.GetTypeDefinition(handle)))
            {
                string to = used[..Math.Max(0, used.LastIndexOf('.'))];
                if (from.Length > 0 && to.Length > 0 && from != to)
                {
                    found.TryAdd((from, to), $"{name} uses {used}");
                }
            }
        }

        return found;
    }

    private IEnumerable<string> TypesOf(TypeDefinition type) =>
    [
        .. Type(type.BaseType),
        .. type.GetInterfaceImplementations().SelectMany(i => Type(_reader.GetInterfaceImplementation(i).Interface)),
        .. type.GetCustomAttributes().SelectMany(a => Member(_reader.GetCustomAttribute(a).Constructor)),
        .. type.GetFields().SelectMany(f => _reader.GetFieldDefinition(f).DecodeSignature(this, null)),
        .. type.GetMethods().SelectMany(m => TypesOf(_reader.GetMethodDefinition(m))),
    ];

    private List<string> TypesOf(MethodDefinition method)
    {
        List<string> found = [.. Signature(method.DecodeSignature(this, null))];
        if (method.RelativeVirtualAddress == 0)
        {
            return found;
        }

        MethodBodyBlock body = _file.GetMethodBody(method.RelativeVirtualAddress);
        if (!body.LocalSignature.IsNil)
        {
            found.AddRange(_reader.GetStandaloneSignature(body.LocalSignature).DecodeLocalSignature(this, null).SelectMany(t => t));
        }

        BlobReader code = body.GetILReader();
        while (code.RemainingBytes > 0)
        {
            ushort opcode = code.ReadByte();
            opcode = opcode == 0xFE ? (ushort)(0xFE00 | code.ReadByte()) : opcode;
            switch (Operands[opcode])
            {
                case OperandType.InlineField or OperandType.InlineMethod or OperandType.InlineTok or OperandType.InlineType:
                    found.AddRange(Member(MetadataTokens.EntityHandle(code.ReadInt32())));
                    break;
                case OperandType.InlineSwitch:
                    int targets = code.ReadInt32();
                    code.Offset += 4 * targets;
                    break;
                case OperandType.InlineNone:
                    break;
                case OperandType.InlineI8 or OperandType.InlineR:
                    code.Offset += 8;
                    break;
                case OperandType.InlineVar:
                    code.Offset += 2;
                    break;
                case OperandType.ShortInlineBrTarget or OperandType.ShortInlineI or OperandType.ShortInlineVar:
                    code.Offset += 1;
                    break;
                default:
                    code.Offset += 4;
                    break;
            }
        }

        return found;
    }

    private IEnumerable<string> Member(EntityHandle handle)
    {
        switch (handle.Kind)
        {
            case HandleKind.MethodDefinition:
                return Type(_reader.GetMethodDefinition((MethodDefinitionHandle)handle).GetDeclaringType());
            case HandleKind.FieldDefinition:
                return Type(_reader.GetFieldDefinition((FieldDefinitionHandle)handle).GetDeclaringType());
            case HandleKind.MemberReference:
                MemberReference member = _reader.GetMemberReference((MemberReferenceHandle)handle);
                return [.. Type(member.Parent), .. member.GetKind() == MemberReferenceKind.Field
                    ? member.DecodeFieldSignature(this, null) : Signature(member.DecodeMethodSignature(this, null))];
            case HandleKind.MethodSpecification:
                MethodSpecification specification = _reader.GetMethodSpecification((MethodSpecificationHandle)handle);
                return [.. Member(specification.Method), .. specification.DecodeSignature(this, null).SelectMany(t => t)];
            default:
                return Type(handle);
        }
    }

    private IEnumerable<string> Type(EntityHandle handle) => handle.IsNil ? [] : handle.Kind switch
    {
        HandleKind.TypeDefinition => [FullName((TypeDefinitionHandle)handle)],
        HandleKind.TypeReference => [FullName((TypeReferenceHandle)handle)],
        HandleKind.TypeSpecification => _reader.GetTypeSpecification((TypeSpecificationHandle)handle).DecodeSignature(this, null),
        _ => [],
    };

    private static IEnumerable<string> Signature(MethodSignature<IEnumerable<string>> signature) =>
        [.. signature.ReturnType, .. signature.ParameterTypes.SelectMany(p => p)];

    /// <summary>A nested type belongs to the namespace of the outermost.</summary>
    private string NamespaceOf(TypeDefinitionHandle handle)
    {
        TypeDefinition type = _reader.GetTypeDefinition(handle);
        return type.GetDeclaringType().IsNil ? _reader.GetString(type.Namespace) : NamespaceOf(type.GetDeclaringType());
    }

    private string FullName(TypeDefinitionHandle handle)
    {
        TypeDefinition type = _reader.GetTypeDefinition(handle);
        return type.GetDeclaringType().IsNil ? $"{_reader.GetString(type.Namespace)}.{_reader.GetString(type.Name)}" : FullName(type.GetDeclaringType());
    }

    private string FullName(TypeReferenceHandle handle)
    {
        TypeReference type = _reader.GetTypeReference(handle);
        return type.ResolutionScope.Kind == HandleKind.TypeReference
            ? FullName((TypeReferenceHandle)type.ResolutionScope)
            : $"{_reader.GetString(type.Namespace)}.{_reader.GetString(type.Name)}";
    }

    public IEnumerable<string> GetArrayType(IEnumerable<string> elementType, ArrayShape shape) => elementType;

    public IEnumerable<string> GetByReferenceType(IEnumerable<string> elementType) => elementType;

    public IEnumerable<string> GetFunctionPointerType(MethodSignature<IEnumerable<string>> signature) => Signature(signature);

    public IEnumerable<string> GetGenericInstantiation(IEnumerable<string> genericType, ImmutableArray<IEnumerable<string>> typeArguments) =>
        [.. genericType, .. typeArguments.SelectMany(t => t)];

    public IEnumerable<string> GetGenericMethodParameter(object? genericContext, int index) => [];

    public IEnumerable<string> GetGenericTypeParameter(object? genericContext, int index) => [];

    public IEnumerable<string> GetModifiedType(IEnumerable<string> modifier, IEnumerable<string> unmodifiedType, bool isRequired) => [.. modifier, .. unmodifiedType];

    public IEnumerable<string> GetPinnedType(IEnumerable<string> elementType) => elementType;

    public IEnumerable<string> GetPointerType(IEnumerable<string> elementType) => elementType;

    public IEnumerable<string> GetPrimitiveType(PrimitiveTypeCode typeCode) => [];

    public IEnumerable<string> GetSZArrayType(IEnumerable<string> elementType) => elementType;

    public IEnumerable<string> GetTypeFromDefinition(MetadataReader reader, TypeDefinitionHandle handle, byte rawTypeKind) => [FullName(handle)];

    public IEnumerable<string> GetTypeFromReference(MetadataReader reader, TypeReferenceHandle handle, byte rawTypeKind) => [FullName(handle)];

    public IEnumerable<string> GetTypeFromSpecification(MetadataReader reader, object? genericContext, TypeSpecificationHandle handle, byte rawTypeKind) =>
        reader.GetTypeSpecification(handle).DecodeSignature(this, genericContext);
}
