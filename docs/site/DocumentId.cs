using System.Globalization;
using System.Reflection;

namespace HpcBatchNorm.Site;

/// <summary>The names by which XML documentation knows members, and their signatures as C# writes them.</summary>
internal static class DocumentId
{
    private static readonly Dictionary<Type, string> Keywords = new()
    {
        [typeof(void)] = "void",
        [typeof(bool)] = "bool",
        [typeof(byte)] = "byte",
        [typeof(sbyte)] = "sbyte",
        [typeof(short)] = "short",
        [typeof(ushort)] = "ushort",
        [typeof(int)] = "int",
        [typeof(uint)] = "uint",
        [typeof(long)] = "long",
        [typeof(ulong)] = "ulong",
        [typeof(float)] = "float",
        [typeof(double)] = "double",
        [typeof(decimal)] = "decimal",
        [typeof(char)] = "char",
        [typeof(string)] = "string",
        [typeof(object)] = "object",
    };

    /// <summary>For example <c>M:HpcBatchNorm.Networks.Network.Infer(System.Int32,System.Int32,System.Int32)</c>.</summary>
    public static string Of(MemberInfo member) => member switch
    {
        Type type => $"T:{TypeName(type.IsGenericType ? type.GetGenericTypeDefinition() : type, definition: true)}",
        MethodBase method => $"M:{TypeName(method.DeclaringType!, definition: true)}.{method.Name.Replace('.', '#')}{(method.IsGenericMethod ? $"``{method.GetGenericArguments().Length}" : "")}"
            + Parameters(method.GetParameters()) + (method is MethodInfo { Name: "op_Implicit" or "op_Explicit" } conversion ? $"~{TypeName(conversion.ReturnType)}" : ""),
        PropertyInfo property => $"P:{TypeName(property.DeclaringType!, definition: true)}.{property.Name}{Parameters(property.GetIndexParameters())}",
        FieldInfo field => $"F:{TypeName(field.DeclaringType!, definition: true)}.{field.Name}",
        EventInfo declared => $"E:{TypeName(declared.DeclaringType!, definition: true)}.{declared.Name}",
        _ => throw new ArgumentException($"{member} has no place in XML documentation."),
    };

    /// <summary>A type as C# writes it, without its namespace.</summary>
    public static string ShortName(Type type)
    {
        if (type.IsByRef || type.IsPointer || type.IsArray)
        {
            return ShortName(type.GetElementType()!) + (type.IsArray ? "[]" : type.IsPointer ? "*" : "");
        }

        if (Keywords.TryGetValue(type, out string? keyword))
        {
            return keyword;
        }

        if (Nullable.GetUnderlyingType(type) is { } value)
        {
            return $"{ShortName(value)}?";
        }

        if (type is { IsGenericType: true } && type.FullName?.StartsWith("System.ValueTuple`", StringComparison.Ordinal) == true)
        {
            return $"({string.Join(", ", type.GetGenericArguments().Select(ShortName))})";
        }

        string name = type.Name.Split('`')[0];
        name = type is { IsNested: true, IsGenericParameter: false } ? $"{ShortName(type.DeclaringType!)}.{name}" : name;
        return type.IsGenericType ? $"{name}<{string.Join(", ", type.GetGenericArguments().Select(ShortName))}>" : name;
    }

    /// <summary>A member as it is called.</summary>
    public static string Signature(MemberInfo member) => member switch
    {
        ConstructorInfo constructor => $"{ShortName(constructor.DeclaringType!)}({Declared(constructor.GetParameters())})",
        MethodInfo method => $"{(method.IsStatic ? "static " : "")}{ShortName(method.ReturnType)} {method.Name}{(method.IsGenericMethod ? $"<{string.Join(", ", method.GetGenericArguments().Select(ShortName))}>" : "")}({Declared(method.GetParameters())})",
        PropertyInfo property => $"{(property.GetAccessors(true)[0].IsStatic ? "static " : "")}{ShortName(property.PropertyType)} {(property.GetIndexParameters() is { Length: > 0 } index ? $"this[{Declared(index)}]" : property.Name)}",
        FieldInfo { DeclaringType.IsEnum: true } field => field.Name,
        FieldInfo field => $"{(field.IsLiteral ? "const " : field.IsStatic ? "static " : "")}{ShortName(field.FieldType)} {field.Name}",
        EventInfo declared => $"event {ShortName(declared.EventHandlerType!)} {declared.Name}",
        _ => member.Name,
    };

    private static string Declared(ParameterInfo[] parameters) => string.Join(", ", parameters.Select(p =>
        $"{(p.IsOut ? "out " : p.ParameterType.IsByRef ? p.IsIn ? "in " : "ref " : "")}{ShortName(p.ParameterType)} {p.Name}{(p.HasDefaultValue ? $" = {Default(p)}" : "")}"));

    private static string Default(ParameterInfo parameter) => parameter.DefaultValue switch
    {
        null => parameter.ParameterType.IsValueType && Nullable.GetUnderlyingType(parameter.ParameterType) is null ? "default" : "null",
        bool flag => flag ? "true" : "false",
        string text => $"\"{text}\"",
        object value when parameter.ParameterType.IsEnum => $"{parameter.ParameterType.Name}.{Enum.ToObject(parameter.ParameterType, value)}",
        object value => Convert.ToString(value, CultureInfo.InvariantCulture) ?? "",
    };

    private static string Parameters(ParameterInfo[] parameters) => parameters.Length == 0 ? "" : $"({string.Join(',', parameters.Select(p => TypeName(p.ParameterType)))})";

    private static string TypeName(Type type, bool definition = false)
    {
        if (type.IsByRef)
        {
            return $"{TypeName(type.GetElementType()!)}@";
        }

        if (type.IsArray)
        {
            return $"{TypeName(type.GetElementType()!)}[{string.Join(',', Enumerable.Repeat("0:", type.GetArrayRank()).Where(_ => type.GetArrayRank() > 1))}]";
        }

        if (type.IsPointer)
        {
            return $"{TypeName(type.GetElementType()!)}*";
        }

        if (type.IsGenericParameter)
        {
            return $"{(type.DeclaringMethod is null ? "`" : "``")}{type.GenericParameterPosition}";
        }

        if (!type.IsGenericType || definition)
        {
            return (type.FullName ?? $"{type.Namespace}.{type.Name}").Replace('+', '.');
        }

        string name = type.GetGenericTypeDefinition().FullName!.Replace('+', '.');
        return $"{name[..name.IndexOf('`')]}{{{string.Join(',', type.GetGenericArguments().Select(a => TypeName(a)))}}}";
    }
}
